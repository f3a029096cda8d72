// The kernels of one native library, held to naive sums in double. Run for each level by `run_kernel_tests.py`.
//
//   test_kernels         checks everything; 0 if all of it holds
//   test_kernels --best  prints the best level of this processor

#include <cstring>

#include "linear_cases.hpp"
#include "lstm_cases.hpp"

static void check_log_softmax() {
  Random random(6);
  for (int count : {1, 2, 15, 16, 17, 70, 10007})
    for (int batch : {1, 3}) {
      const auto logits = random.values(static_cast<size_t>(batch) * count, 30.0f);
      Array out(logits, batch % 2);
      dopant_log_softmax(out.data(), batch, count);
      for (int b = 0; b < batch; ++b) {
        double most = -INFINITY, total = 0.0;
        for (int i = 0; i < count; ++i) most = std::fmax(most, logits[static_cast<size_t>(b) * count + i]);
        for (int i = 0; i < count; ++i) total += std::exp(logits[static_cast<size_t>(b) * count + i] - most);
        for (int i = 0; i < count; ++i) {
          const double got = out[static_cast<size_t>(b) * count + i];
          const double wanted = logits[static_cast<size_t>(b) * count + i] - most - std::log(total);
          if (!check(std::fabs(got - wanted) <= 1e-5 * (1.0 + std::fabs(wanted)), "log-softmax of %d: %g, not %g",
                     count, got, wanted))
            break;
        }
      }
    }
  const uint32_t payload = 0x7fc001ffu;
  float strange;
  std::memcpy(&strange, &payload, 4);
  for (int count : {5, 16, 50})
    for (int place : {0, 3, count - 1})
      for (float bad : {NAN, strange, INFINITY, -INFINITY}) {
        std::vector<float> logits(static_cast<size_t>(count), 1.0f);
        logits[static_cast<size_t>(place)] = bad;
        dopant_log_softmax(logits.data(), 1, count);
        for (int i = 0; i < count; ++i) {  // as in torch: one impossible word does not spread, all else does
          const float got = logits[static_cast<size_t>(i)];
          if (bad == -INFINITY)
            check(i == place ? got == -INFINITY : std::fabs(got + std::log(count - 1.0f)) < 1e-5f,
                  "log-softmax of %d with -inf at %d: %g at %d", count, place, got, i);
          else
            check(std::isnan(got), "log-softmax of %d with %g at %d: %g at %d", count, bad, place, got, i);
        }
      }
}

int main(int count, char** arguments) {
  if (count > 1 && std::strcmp(arguments[1], "--best") == 0) return std::puts(dopant_best_level()) < 0;
  check(dopant_version() == 5, "interface %d", dopant_version());
  check_dense();
  check_full_dense();
  check_large_dense();
  check_sparse();
  check_magnitudes();
  check_kronecker();
  check_composed();
  check_lstms();
  check_log_softmax();
  check(dopant_read_bandwidth(1 << 14) > 0.0, "no bandwidth");
  std::printf("%ld checks, %ld failed\n", tally.checked, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}
