#include "sim/portable_math.hpp"

#include <array>
#include <cmath>
#include <limits>

#include "sim/ensure.hpp"

namespace trainyard::sim {
namespace {

// The natural logarithm of 2 in two parts: multiples of the first are exact.
constexpr double log2_high = 6.93147180369123816490e-01;
constexpr double log2_low = 1.90821492927058770002e-10;

template <std::size_t count>
double polynomial(const std::array<double, count>& coefficients, double x) {
  double sum = 0;
  for (std::size_t i = count; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

}  // namespace

// log(2^e m) = e log 2 + 2 artanh((m - 1) / (m + 1)), with m within a factor of sqrt(2) of 1.
double portable_log(double x) {
  ensure(x > 0, "what has a logarithm is positive");
  constexpr double root_half = 0.70710678118654752440;
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < root_half) {
    mantissa *= 2;
    --exponent;
  }
  const double z = (mantissa - 1) / (mantissa + 1);
  const double square = z * z;
  double sum = 0;
  for (int term = 27; term >= 1; term -= 2) sum = sum * square + 1.0 / term;
  return exponent * log2_high + (2 * z * sum + exponent * log2_low);
}

// exp(x) = 2^k exp(r), with r at most half of log 2, by its series.
double portable_exp(double x) {
  constexpr double range = 700;
  if (x < -range) return 0;
  if (x > range) return std::numeric_limits<double>::infinity();
  const double k = std::floor(x / (log2_high + log2_low) + 0.5);
  const double rest = (x - k * log2_high) - k * log2_low;
  double sum = 1;
  for (int term = 16; term >= 1; --term) sum = 1 + sum * rest / term;
  return std::ldexp(sum, static_cast<int>(k));
}

double portable_power(double x, double y) { return portable_exp(y * portable_log(x)); }

// Lanczos, SIAM J. Numer. Anal. B 1, 1964, with g = 7 and nine terms.
double portable_gamma(double x) {
  ensure(x >= 1 && x <= 30, "gamma is asked for between 1 and 30");
  constexpr std::array<double, 9> terms{0.99999999999980993,  676.5203681218851,     -1259.1392167224028,
                                        771.32342877765313,   -176.61502916214059,   12.507343278686905,
                                        -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7};
  constexpr double root_of_two_pi = 2.5066282746310005024;
  double sum = terms[0];
  for (std::size_t i = 1; i < terms.size(); ++i) sum += terms[i] / (x - 1 + static_cast<double>(i));
  const double base = x + 6.5;
  return root_of_two_pi * portable_power(base, x - 0.5) * portable_exp(-base) * sum;
}

// Wichura, Algorithm AS 241, Applied Statistics 37, 1988: PPND16, good to 16 digits.
double normal_quantile(double probability) {
  ensure(probability > 0 && probability < 1, "a probability lies between 0 and 1");
  constexpr std::array<double, 8> middle_over{
      3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
      4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3};
  constexpr std::array<double, 8> middle_under{1,
                                               4.2313330701600911252e+1,
                                               6.8718700749205790830e+2,
                                               5.3941960214247511077e+3,
                                               2.1213794301586595867e+4,
                                               3.9307895800092710610e+4,
                                               2.8729085735721942674e+4,
                                               5.2264952788528545610e+3};
  constexpr std::array<double, 8> outer_over{
      1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,  3.64784832476320460504e0,
      1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr std::array<double, 8> outer_under{1,
                                              2.05319162663775882187e0,
                                              1.67638483018380384940e0,
                                              6.89767334985100004550e-1,
                                              1.48103976427480074590e-1,
                                              1.51986665636164571966e-2,
                                              5.47593808499534494600e-4,
                                              1.05075007164441684324e-9};
  constexpr std::array<double, 8> tail_over{
      6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,  2.96560571828504891230e-1,
      2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr std::array<double, 8> tail_under{1,
                                             5.99832206555887937690e-1,
                                             1.36929880922735805310e-1,
                                             1.48753612908506148525e-2,
                                             7.86869131145613259100e-4,
                                             1.84631831751005468180e-5,
                                             1.42151175831644588870e-7,
                                             2.04426310338993978564e-15};
  const double from_middle = probability - 0.5;
  if (std::abs(from_middle) <= 0.425) {
    const double x = 0.180625 - from_middle * from_middle;
    return from_middle * polynomial(middle_over, x) / polynomial(middle_under, x);
  }
  const double tail = from_middle < 0 ? probability : 1 - probability;
  const double depth = std::sqrt(-portable_log(tail));
  const double quantile = depth <= 5 ? polynomial(outer_over, depth - 1.6) / polynomial(outer_under, depth - 1.6)
                                     : polynomial(tail_over, depth - 5) / polynomial(tail_under, depth - 5);
  return from_middle < 0 ? -quantile : quantile;
}

}  // namespace trainyard::sim
