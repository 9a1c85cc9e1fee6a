/* Functions of which the instructions and the stack are known. */
#ifndef KNOWN_H
#define KNOWN_H

#define FRAME_BYTES 496

#ifndef __ASSEMBLER__
void known_loop(void *count); /* *(uint32_t *)count = n > 0: 2 n + 2 instructions, no stack */
void known_frame(void *unused); /* 4 instructions, FRAME_BYTES of stack */
#endif

#endif
