int main(void)
{
    static @{prefix}_state state;
    uint32_t k = 0;
    @{prefix}_init(&state);
    for (unsigned s = 0; s < @{sequences}u; s++) {
        @answer logits[@{P}_CLASSES];
        const uint32_t end = k + lengths[s];
        @{prefix}_reset(&state);
        for (; k < end; k++) {
            @{prefix}_step(&state, raw[k]);
        }
        (void)@{prefix}_finish(&state, logits);
        if (differs(s, logits, expected[s])) {
            return 1;
        }
    }
    printf("ok: @sequences sequences, every answer as expected\n");
    return 0;
}
