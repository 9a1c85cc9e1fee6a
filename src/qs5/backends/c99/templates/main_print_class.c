static void print_answer(int label, const @answer logits[@{P}_AT_LEAST(@{P}_CLASSES)])
{
    @print_label
    for (unsigned i = 0; i < @{P}_CLASSES; i++) {
        printf(i == 0 ? "\t%ld" : " %ld", (long)logits[i]);
    }
    printf("\n");
}
