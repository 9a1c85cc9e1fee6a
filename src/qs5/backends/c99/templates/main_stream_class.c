int main(void)
{
    static @{prefix}_state state;
    @raw raw[@{P}_CHANNELS];
    @answer logits[@{P}_CLASSES];
    unsigned long steps = 0;
    int kind;
    @{prefix}_init(&state);
    do {
        kind = read_step(raw);
        if (kind == 1) {
            if (steps == @{P}_MAX_STEPS) {
                fail("the sequence is too long: lower the model with a larger --max-length");
            }
            @{prefix}_step(&state, raw);
            steps++;
        } else if (steps != 0) {
            print_answer(@{prefix}_finish(&state, logits), logits);
            @{prefix}_reset(&state);
            steps = 0;
        }
    } while (kind != -1);
    return 0;
}
