int main(void)
{
    static @{prefix}_state state;
    static @{prefix}_row scratch[@{P}_MAX_LENGTH];
    static @raw raw[@{P}_MAX_LENGTH + 1][@{P}_CHANNELS]; /* one more, to see that there is too much */
    @answer logits[@{P}_CLASSES];
    uint32_t steps = 0;
    int kind;
    @{prefix}_init(&state);
    do {
        kind = read_step(raw[steps]);
        if (kind == 1) {
            steps++;
            if (steps > @{P}_MAX_STEPS) {
                fail("the sequence is too long: lower the model with a larger --max-length");
            }
            if (steps > @{P}_MAX_LENGTH) {
                fail("the sequence is too long: compile with a larger @{P}_MAX_LENGTH");
            }
        } else if (steps != 0) {
            print_answer(@{prefix}_run(&state, raw[0], steps, scratch, logits), logits);
            steps = 0;
        }
    } while (kind != -1);
    return 0;
}
