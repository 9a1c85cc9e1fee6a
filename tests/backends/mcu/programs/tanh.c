double tanh(double);

int main(void)
{
    volatile double x = 0.5;
    return (int)tanh(x);
}
