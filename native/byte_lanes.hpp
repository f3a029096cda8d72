// Lanes of x in digits (bytes.hpp), for sparse matrices of 8-bit values that serve one lane after the other.
#pragma once

#include <algorithm>
#include <type_traits>

#include "arena.hpp"
#include "bytes.hpp"

namespace dopant {

constexpr int kByteLanes = 16;  // at a time

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

struct ByteLane {
  uint8_t* digits[kMostDigits];
  const float* x;
  float* left;  // of x after a turn
  Digits now;   // of a turn
  bool done;

  // The numbers that sums over digits stand for, the last digit counting 1.
  template <int D>
  static __m512 number(const __m512i (&total)[D]) {
    __m512 sum = _mm512_cvtepi32_ps(total[0]);
    if constexpr (D > 1) {
      // The first digit's sum has half of all numbers: it is added last.
      __m512 lower = _mm512_cvtepi32_ps(total[1]);
#pragma GCC unroll 4
      for (int d = 2; d < D; ++d) lower = _mm512_fmadd_ps(lower, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(total[d]));
      sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(D == 3 ? 0x1p16f : 0x1p24f), lower);
    }
    return sum;
  }
};

using ByteScales = float[kByteLanes];  // of the lanes' numbers

// _mm512_dpbusd_epi32, which GCC 12 copies every sum for, before and after.
inline void add_dot(__m512i& total, __m512i digits, __m512i values) {
  asm("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(digits), "v"(values));
}

// What 64 bytes of index choose from R registers: 7 bits choose from two of them, the eighth which two.
template <int R>
inline __m512i looked_up(const __m512i (&x)[R], __m512i index) {
  if constexpr (R == 1) return _mm512_permutexvar_epi8(index, x[0]);
  if constexpr (R > 1) {
    const __m512i low = _mm512_permutex2var_epi8(x[0], index, x[1]);
    if constexpr (R == 2) return low;
    if constexpr (R == 3) return _mm512_mask_permutexvar_epi8(low, _mm512_movepi8_mask(index), index, x[2]);
    if constexpr (R == 4)
      return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), _mm512_permutex2var_epi8(x[2], index, x[3]));
  }
}

// Room for `count` lanes of x, one after the other: for x if it does not lie like that already, and for what turns leave of it.
struct ByteRoom {
  int count;
  bool exact;
  Strips strips;
  size_t width;  // of a lane: whole registers
  float *x, *spare;

  ByteRoom(int count, bool exact, Strips strips, Arena& arena)
      : count(count), exact(exact), strips(strips), width((static_cast<size_t>(strips.columns()) + 15) / 16 * 16) {
    x = arena.take<float>(width * count);
    spare = arena.take<float>(width);
  }
};

// Every lane's digits, in as many turns as they take: multiply(lanes, scales) for each turn, where lanes without digits are to
// be left out; slowly(k) for lane k if it is not finite: no bytes can stand for it. x is the room's, or one lane elsewhere.
template <class Slowly, class Multiply>
inline void in_turns(const ByteRoom& room, const float* x, Arena& arena, Slowly slowly, Multiply multiply) {
  const Strips& strips = room.strips;
  const size_t bytes = static_cast<size_t>(strips.count) * strips.room;
  ByteLane lanes[kByteLanes];
  for (int k = 0; k < room.count; ++k) {
    lanes[k].x = x + k * room.width;
    lanes[k].left = room.x + k * room.width;
    for (int d = 0; d < (room.exact ? kMostDigits : 1); ++d) lanes[k].digits[d] = arena.take<uint8_t>(bytes);
    lanes[k].done = largest_size(lanes[k].x, strips.columns()) == 0.0f;  // one that is there to fill a register up
  }
  const auto digits_of = [&](const ByteLane& lane) {
    if (!room.exact) return Digits::one(lane.x, strips, lane.digits);
    return Digits::enough(lane.x, strips, lane.digits, room.spare, lane.left);
  };
  for (bool all = false; !all;) {
    all = true;
    for (int k = 0; k < room.count; ++k) {
      ByteLane& lane = lanes[k];
      if (lane.done) {
        lane.now.count = 0;
        continue;
      }
      lane.now = digits_of(lane);
      if (lane.now.count == 0) slowly(k);
      lane.done = lane.now.all || lane.now.count == 0;
      lane.x = lane.left;
      all = all && lane.done;
    }
    ByteScales scales;
    for (int k = 0; k < room.count; ++k) scales[k] = lanes[k].now.count == 0 ? 1.0f : lanes[k].now.scale;
    multiply(static_cast<const ByteLane*>(lanes), scales);
  }
}

// f(D, L) for the next lane of D digits, or the next four where these have one each: they then share the loads of units.
// How many it was; one has no digits where D is 0.
template <class F>
inline int next_lanes(const ByteLane* lanes, int there, F f) {
  const auto one_digit = [](const ByteLane& lane) { return lane.now.count == 1; };
  if (there >= 4 && std::all_of(lanes, lanes + 4, one_digit)) {
    f(std::integral_constant<int, 1>(), std::integral_constant<int, 4>());
    return 4;
  }
  constexpr std::integral_constant<int, 1> one;
  switch (lanes->now.count) {
    case 1: f(one, one); break;
    case 3: f(std::integral_constant<int, 3>(), one); break;
    case 4: f(std::integral_constant<int, 4>(), one); break;
    default: f(std::integral_constant<int, 0>(), one);
  }
  return 1;
}

#endif

}  // namespace dopant
