int main(void)
{
    static @{prefix}_state state;
    @raw raw[@{P}_CHANNELS];
    @answer outputs[@{P}_OUTPUTS];
    unsigned long steps = 0;
    int kind;
    @{prefix}_init(&state);
    do {
        kind = read_step(raw);
        if (kind == 1) {
            @{prefix}_step(&state, raw, outputs);
            print_outputs(outputs);
            steps++;
        } else if (steps != 0) {
            @{prefix}_reset(&state);
            steps = 0;
        }
    } while (kind != -1);
    return 0;
}
