// Functions of which standard libraries give different last bits. These are made of additions, multiplications,
// divisions and square roots alone, which IEEE 754 rounds in one way only, so that a random draw, and with it the order
// of events, is the same on every machine.
#pragma once

namespace trainyard::sim {

double portable_log(double x);              // natural; x > 0
double portable_exp(double x);              // 0 below -700, infinity above 700
double portable_power(double x, double y);  // x > 0
double portable_gamma(double x);            // 1 <= x <= 30

// Where the standard normal distribution reaches `probability`, between 0 and 1.
double normal_quantile(double probability);

}  // namespace trainyard::sim
