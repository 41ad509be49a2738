"""Refuses messages that do not say what to do, lets some wait, and reports what is done."""

from rqcore.hookspecs import Delay, Reject, hookimpl


@hookimpl
def rq_check_message(message):
    return None if message.param1 else Reject("param1 is empty: say what to do")


@hookimpl
def rq_check_start(message):
    return Delay(message.due + 2, "it may wait a little") if message.param1 == "later" else None


@hookimpl
def rq_message_done(message, queue, status):
    print(f"guard: {queue.name}/{message.msg_id} is done: {status}", flush=True)
