#include "mcu.h"

int main(void)
{
    mcu_text("started");
    for (;;) {
    }
}
