int main(void)
{
    static @{prefix}_state state;
    uint32_t k = 0;
    @{prefix}_init(&state);
    for (unsigned s = 0; s < @{sequences}u; s++) {
        const uint32_t end = k + lengths[s];
        @{prefix}_reset(&state);
        for (; k < end; k++) {
            @answer outputs[@{P}_OUTPUTS];
            @{prefix}_step(&state, raw[k], outputs);
            if (differs(k, outputs, expected[k])) {
                return 1;
            }
        }
    }
    printf("ok: @sequences sequences, every answer as expected\n");
    return 0;
}
