#!/bin/sh
# The smallest useful queue script: what it prints is the message's log, what it writes to
# descriptor 3 is for RQ: a line of status whenever there is news, and one verdict at the end.
echo "Hello, ${RQ_PARAM1:-stranger}. This is message $RQ_MSG_ID in queue $RQ_DEST_QUEUE."

for step in 1 2 3; do
    echo "run $step of 3" >&3
    echo "step $step"
    sleep 1
done

echo "done said hello to ${RQ_PARAM1:-stranger}" >&3
