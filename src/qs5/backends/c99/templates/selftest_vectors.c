/* Golden vectors of @name: every answer must equal the reference's. 1 at a difference. */
#include <stdio.h>

#include "@name.h"

@lengths
@samples
@expected

static int differs(unsigned long at, const @answer *got, const @answer *want)
{
    for (unsigned i = 0; i < @{P}_@{count}; i++) {
        if (got[i] != want[i]) {
            printf("answer %lu, number %u: expected %ld, got %ld\n", at, i, (long)want[i], (long)got[i]);
            return 1;
        }
    }
    return 0;
}
