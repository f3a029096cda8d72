// Numbers of 16 bits in pairs, as the dot instruction takes them: what both kernels of short Kronecker products share.
//
// A vector is scaled to whole numbers X of 16 bits, a row of a factor to numbers F whose magnitudes add up to less than
// 2^16. So sums of products fit 32 bits, |Σ F X| ≤ 65535 · 32767 < 2^31 - 2^15, and their upper halves are numbers of 16
// bits again.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vec.hpp"

namespace dopant {

#if defined(__AVX512VNNI__)

using Pair = int32_t;           // two 16-bit numbers, the first in the lower half
constexpr int kPairLanes = 16;  // a register of pairs

// Pairs of two registers: the lower halves of `first`, the upper halves of `second`.
inline __m512i lower_upper(__m512i first, __m512i second) { return _mm512_mask_blend_epi16(0xaaaaaaaa, first, second); }

// The scale of a factor's row: such that magnitudes add up to 65535 at most, though rounding adds a half to each.
inline double short_scale(const float* row, int columns) {
  double sum = 0.0, largest = 1e-30;
  for (int j = 0; j < columns; ++j) {
    sum += std::fabs(row[j]);
    largest = std::max(largest, std::fabs(double{row[j]}));
  }
  return std::max(sum / (65535.0 - 0.5 * columns), largest / 32767.0);
}

#endif

}  // namespace dopant
