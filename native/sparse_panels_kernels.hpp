// The inner loops of panels (sparse_panels.hpp).
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "byte_lanes.hpp"
#include "sparse_order.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

struct PanelRun {  // blocks of a panel that have the same number of units
  int32_t panel, units, blocks;
};

struct PanelUnits {
  const std::vector<PanelRun>& runs;
  const int32_t* block_of;  // run after run
  const uint8_t* units;     // unit after unit: 64 bytes of index, 64 values
};

// L lanes of D digits: sums of first digits in `totals` (L, height); of all others, the last one counting 1, in `lower`.
template <int D, int L>
__attribute__((noinline)) void byte_units(PanelUnits panels, const ByteLane* lanes, int32_t* totals, float* lower, size_t height) {
  static_assert(D == 1 || L == 1, "`lower` has room for one lane");
  const int32_t* block = panels.block_of;
  const uint8_t* unit = panels.units;
  for (const PanelRun& run : panels.runs) {
    __m512i table[L][D][4];
#pragma GCC unroll 4
    for (int l = 0; l < L; ++l)
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d)
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) table[l][d][k] = _mm512_load_si512(lanes[l].digits[d] + run.panel * 256 + k * 64);
    for (int k = 0; k < run.blocks; ++k) {
      const size_t to = static_cast<size_t>(*block++) * 16;
      __m512i total[L][D];
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) {
        total[l][0] = _mm512_load_si512(totals + l * height + to);
#pragma GCC unroll 4
        for (int d = 1; d < D; ++d) total[l][d] = _mm512_setzero_si512();
      }
      __m512i zeros = _mm512_setzero_si512();  // what first digits of zero add up to
      for (int n = run.units; n > 0; --n, unit += 128) {
        _mm_prefetch(unit + 1024, _MM_HINT_T0);
        _mm_prefetch(unit + 1088, _MM_HINT_T0);
        __m512i index = _mm512_load_si512(unit), values = _mm512_load_si512(unit + 64);
        asm("" : "+v"(index), "+v"(values));  // loaded once, not for each digit
        add_dot(zeros, _mm512_set1_epi8(static_cast<char>(kByteZero)), values);
#pragma GCC unroll 4
        for (int l = 0; l < L; ++l)
#pragma GCC unroll 4
          for (int d = 0; d < D; ++d) add_dot(total[l][d], looked_up<4>(table[l][d], index), values);
      }
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) _mm512_store_si512(totals + l * height + to, _mm512_sub_epi32(total[l][0], zeros));
      if constexpr (D > 1) {
        __m512 sum = _mm512_cvtepi32_ps(total[0][1]);
#pragma GCC unroll 4
        for (int d = 2; d < D; ++d) sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(total[0][d]));
        _mm512_store_ps(lower + to, _mm512_add_ps(_mm512_load_ps(lower + to), sum));
      }
    }
  }
}

// A block's units, while they serve 32 lanes of floats: places as offsets that an address takes as they are, and values as
// floats.
struct UnpackedUnits {
  static constexpr int kRows = 16, kEach = 4, kSlots = kRows * kEach;
  static constexpr int kMost = 8;  // units at a time
  static constexpr int kColumn = 32 * sizeof(float);
  alignas(64) float values[kMost * kSlots];
  alignas(64) uint16_t offsets[kMost * kSlots];
  int count;

  UnpackedUnits(const uint8_t* unit, int count) : count(count) {
    for (int n = 0; n < count; ++n, unit += 2 * kSlots) {
#pragma GCC unroll 2
      for (int k = 0; k < kSlots; k += 32) {
        const __m512i places = _mm512_cvtepu8_epi16(_mm256_load_si256(reinterpret_cast<const __m256i*>(unit + k)));
        _mm512_store_si512(offsets + n * kSlots + k, _mm512_mullo_epi16(places, _mm512_set1_epi16(kColumn)));
      }
#pragma GCC unroll 4
      for (int k = 0; k < kSlots; k += 16)
        store<16>(values + n * kSlots + k, widen<16>(reinterpret_cast<const int8_t*>(unit + kSlots + k)));
    }
  }

  // y += this x, x being 32 lanes of the panel's columns, for the block's rows from `place` on.
  void add(const float* x, int place, int rows, PlacedRows to) const {
    const auto column = [x](size_t offset) { return reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + offset); };
    for (int r = 0; r < rows; ++r) {
      const uint16_t* offset = offsets + kEach * r;
      const float* value = values + kEach * r;
      Vec<16> sums[2][2] = {};  // of every other slot
      for (int n = count; n > 0; --n, offset += kSlots, value += kSlots) {
        uint64_t four;  // in one load
        std::memcpy(&four, offset, 8);
        const __m512 of_four = _mm512_castps128_ps512(_mm_load_ps(value));
#pragma GCC unroll 4
        for (int s = 0; s < 4; ++s) {
          const float* from = column(four >> 16 * s & 0xffff);
          asm("" : "+r"(from));  // computed once: a multiply-accumulate with an index is two instructions
          const Vec<16> factor = (Vec<16>)_mm512_permutexvar_ps(_mm512_set1_epi32(s), of_four);
          sums[s % 2][0] += factor * load<16>(from);
          sums[s % 2][1] += factor * load<16>(from + 16);
        }
      }
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) to.add<16>(place + r, k * 16, sums[0][k] + sums[1][k]);
    }
  }
};

// y += units · x: 32 lanes of floats, x (columns, 32).
__attribute__((noinline)) inline void float_lanes(PanelUnits panels, const float* x, PlacedRows to) {
  const int32_t* block = panels.block_of;
  const uint8_t* unit = panels.units;
  for (const PanelRun& run : panels.runs)
    for (int k = 0; k < run.blocks; ++k) {
      const int place = *block++ * UnpackedUnits::kRows;
      for (int left = run.units; left > 0; left -= UnpackedUnits::kMost) {
        const UnpackedUnits some(unit, std::min(left, UnpackedUnits::kMost));
        unit += some.count * 2 * UnpackedUnits::kSlots;
        some.add(x + run.panel * 256 * 32, place, std::min(UnpackedUnits::kRows, to.count - place), to);
      }
    }
}

#endif

}  // namespace dopant
