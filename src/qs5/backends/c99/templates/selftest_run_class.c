int main(void)
{
    static @{prefix}_state state;
    static @{prefix}_row scratch[@longest];
    @answer logits[@{P}_CLASSES];
    uint32_t at = 0;
    @{prefix}_init(&state);
    for (unsigned s = 0; s < @{sequences}u; s++) {
        (void)@{prefix}_run(&state, raw[at], lengths[s], scratch, logits);
        if (differs(s, logits, expected[s])) {
            return 1;
        }
        at += lengths[s];
    }
    printf("ok: @sequences sequences, every answer as expected\n");
    return 0;
}
