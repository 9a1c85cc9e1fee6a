int main(void)
{
    static @{prefix}_state state;
    static @{prefix}_row scratch[@longest];
    static @answer outputs[@longest][@{P}_OUTPUTS];
    uint32_t at = 0;
    @{prefix}_init(&state);
    for (unsigned s = 0; s < @{sequences}u; s++) {
        @{prefix}_run(&state, raw[at], lengths[s], scratch, outputs);
        for (uint32_t k = 0; k < lengths[s]; k++) {
            if (differs(at + k, outputs[k], expected[at + k])) {
                return 1;
            }
        }
        at += lengths[s];
    }
    printf("ok: @sequences sequences, every answer as expected\n");
    return 0;
}
