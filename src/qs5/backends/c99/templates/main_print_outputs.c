static void print_outputs(const @answer outputs[@{P}_AT_LEAST(@{P}_OUTPUTS)])
{
    for (unsigned i = 0; i < @{P}_OUTPUTS; i++) {
        printf(i == 0 ? "%ld" : " %ld", (long)outputs[i]);
    }
    printf("\n");
}
