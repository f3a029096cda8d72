// What the machine can do at best, for the benchmark to say how near a kernel comes.
#pragma once

#include <chrono>

#include "arena.hpp"
#include "vec.hpp"

namespace dopant {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes read a second from a buffer of this size, by one thread; the best of several passes.
inline double read_bandwidth(size_t bytes) {
  const AlignedVector<float> buffer(bytes / sizeof(float) + 8 * W, 1.0f);
  const size_t count = bytes / sizeof(float) / (8 * W) * (8 * W);
  const int passes = static_cast<int>(1 + (size_t{64} << 20) / (bytes + 1));
  double best = 0.0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    Vec<W> sums[8] = {};
    const double start = seconds_now();
    for (int pass = 0; pass < passes; ++pass) {
      for (size_t i = 0; i < count; i += 8 * W)
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) sums[k] += load<W>(buffer.data() + i + k * W);
      asm volatile("" : : "r"(buffer.data()) : "memory");
    }
    const double rate = static_cast<double>(count) * sizeof(float) * passes / (seconds_now() - start);
    for (int k = 1; k < 8; ++k) sums[0] += sums[k];
    volatile float keep = sum<W>(sums[0]);
    (void)keep;
    if (rate > best) best = rate;
  }
  return best;
}

// Floating-point operations a second (a multiply-accumulate counts as two), by one thread.
inline double multiply_add_peak() {
  constexpr int kChains = 12;
  double best = 0.0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    Vec<W> sums[kChains];
    for (int k = 0; k < kChains; ++k) sums[k] = all<W>(static_cast<float>(k));
    Vec<W> factor = all<W>(0.999f), term = all<W>(0.001f);
    constexpr int kRounds = 1 << 20;
    const double start = seconds_now();
    for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
      for (int k = 0; k < kChains; ++k) sums[k] = sums[k] * factor + term;
    }
    const double rate = 2.0 * W * kChains * kRounds / (seconds_now() - start);
    for (int k = 1; k < kChains; ++k) sums[0] += sums[k];
    volatile float keep = sum<W>(sums[0]);
    (void)keep;
    if (rate > best) best = rate;
  }
  return best;
}

}  // namespace dopant
