/* A queue script in C: what it prints is the log, what it writes to descriptor 3 is for RQ.
 *
 *     cc -o hello hello.c
 */
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    const char *name = getenv("RQ_PARAM1");
    FILE *rq = fdopen(3, "w");
    if (rq == NULL)
        return 1; /* not started by RQ */
    if (name == NULL || *name == '\0') {
        fputs("err nobody to greet\n", rq);
        return fclose(rq) == 0 ? 0 : 1;
    }
    printf("Hello, %s.\n", name);
    fprintf(rq, "done said hello to %s\n", name);
    return fclose(rq) == 0 ? 0 : 1;
}
