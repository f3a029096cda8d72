// The LSTM cell: from gates to the new state, with exp by a polynomial (relative error about 1e-7), or σ and tanh by
// tables (fast: absolute error below 3e-4, a tenth of what activations lose as bytes).
#pragma once

#include <algorithm>

#include "curve.hpp"

namespace dopant {

// e^(factor(k) · x[k]) = scale · (1 + rest) with a power of two and a small rest, so that 1 - e^x too comes out to the
// last digits. Of K vectors, step by step: a chain of some twenty operations, and a processor looks only so far ahead.
template <int K>
struct Exponentials {
  Vec<W> scale[K], rest[K];

  template <class Factor>
  inline Exponentials(const Vec<W> (&x)[K], Factor factor) {
    // 1.5 · 2^23: adding it rounds to a whole number, in the lowest bits; 127 more, and they are an exponent.
    constexpr float magic = 12582912.0f + 127.0f;
    Vec<W> within[K], shifted[K], r[K], p[K];
    // Beyond these powers of two σ and tanh are at their ends but for 2^-57, and the square of the larger one is still a number.
    const auto limit = [&](int k, float power) { return power / (kLog2e * factor(k)); };
    each([&](int k) { within[k] = at_most<W>(x[k], std::max(limit(k, -115.0f), limit(k, 57.0f))); });
    each([&](int k) { within[k] = at_least<W>(within[k], std::min(limit(k, -115.0f), limit(k, 57.0f))); });
    each([&](int k) { shifted[k] = within[k] * (kLog2e * factor(k)) + magic; });
    each([&](int k) { r[k] = within[k] * (kLog2e * factor(k)) - (shifted[k] - magic); });
    each([&](int k) { r[k] += within[k] * (kLog2eRest * factor(k)); });
    each([&](int k) { scale[k] = (Vec<W>)((IntVec<W>)shifted[k] << 23); });
    // (2^r - 1) / r for |r| <= 1/2, to a relative error of 1.1e-8
    each([&](int k) { p[k] = 1.5403512350e-4f * r[k] + 1.3390735477e-3f; });
    for (const float next : {9.6182374950e-3f, 5.5503574336e-2f, 2.4022649795e-1f, 6.9314718793e-1f})
      each([&](int k) { p[k] = p[k] * r[k] + next; });
    each([&](int k) { rest[k] = p[k] * r[k]; });
  }
  Vec<W> value(int k) const { return scale[k] * rest[k] + scale[k]; }
  Vec<W> from_one(int k) const { return (1.0f - scale[k]) - scale[k] * rest[k]; }  // 1 - value

 private:
  static constexpr float kLog2e = 1.44269504088896341f, kLog2eRest = 1.92596299e-8f;  // what a float cuts off

  template <class F>
  static inline void each(F f) {
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) f(k);
  }
};

// a / b, nearly always to the last bit, for numbers far from the ends of the range: what a first one leaves corrects it.
inline Vec<W> quotient(Vec<W> a, Vec<W> b) {
#if defined(__AVX512F__)
  const Vec<W> near = (Vec<W>)_mm512_rcp14_ps((__m512)b), first = a * near;
  return first + near * (a - first * b);
#else
  return a / b;
#endif
}

// The biases of the features in a register: one for every L lanes. Whole registers are read.
template <int L>
inline Vec<W> biases(const float* bias) {
  if constexpr (L >= W) return all<W>(*bias);
  if constexpr (L == 1) return load<W>(bias);
  Vec<W> v{};
#if defined(__AVX512F__)
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  v = (Vec<W>)_mm512_permutexvar_ps(_mm512_srli_epi32(lane, L == 4 ? 2 : 3), _mm512_loadu_ps(bias));
#else
  for (int k = 0; k < W; ++k) v[k] = bias[k / L];
#endif
  return v;
}

// Addresses that the cell of a large batch prefetches from while it computes, as far as its own arrays reach: the inputs of
// the next steps and the outputs of these, which no kernel has touched for long. Null for none.
struct Soon {
  const float *read = nullptr, *written = nullptr;
};

// The cell of `hidden` features with so many lanes each: gates i f g o and their biases, c before and after, and h, which
// is written to two places: the next layer's input and this one's next. L: lanes, but W for W and more.
template <int L, bool Fast>
struct Cell {
  const float *gates, *bias, *c_before;
  float *c, *h, *again;
  int hidden, lanes;
  Soon soon = {};

  // The next register, and the feature and the lane that it begins with.
  size_t at = 0, size = static_cast<size_t>(hidden) * lanes;
  int feature = 0, lane = 0;
  void advance() {
    if (L >= W && soon.read != nullptr) __builtin_prefetch(soon.read + at, 0, 2);
    if (L >= W && soon.written != nullptr) __builtin_prefetch(soon.written + at, 1, 2);
    at += W;
    if (L < W) feature += W / L;
    if (L >= W && (lane += W) == lanes) lane = 0, ++feature;
  }

  // A register of gates with their biases.
  Vec<W> gate(int which) const {
    return load<W>(gates + which * size + at) + biases<L>(bias + static_cast<size_t>(which) * hidden + feature);
  }
  void store_h(size_t place, Vec<W> value) {
    store<W>(h + place, value);
    store<W>(again + place, value);
  }

  // σ(a) = 1 / (1 + e^-a), tanh(b) = m / (2 - m) with m = 1 - e^-2b; a product of the two takes one division.
  // Of K registers, G of them side by side: eight chains keep two multipliers busy.
  template <int K, int G>
  void step_exact() {
    const size_t first = at;
    Vec<W> next[K], output[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; k += G) {
      Vec<W> gate[4 * G], kept[G];
#pragma GCC unroll 2
      for (int j = 0; j < G; ++j, advance()) {
#pragma GCC unroll 4
        for (int which = 0; which < 4; ++which) gate[4 * j + which] = this->gate(which);
        kept[j] = load<W>(c_before + at);
      }
      const Exponentials<4 * G> e(gate, [](int which) { return which % 4 == 2 ? -2.0f : -1.0f; });
#pragma GCC unroll 2
      for (int j = 0; j < G; ++j) {
        const Vec<W> m = e.from_one(4 * j + 2);
        kept[j] *= quotient(all<W>(1.0f), 1.0f + e.value(4 * j + 1));  // alone: an open gate keeps a state to the last bit
        next[k + j] = kept[j] + quotient(m, e.value(4 * j) * (2.0f - m) + (2.0f - m));
        store<W>(c + first + (k + j) * W, next[k + j]);
        output[k + j] = e.value(4 * j + 3);
      }
    }
    const Exponentials<K> e(next, [](int) { return -2.0f; });
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      const Vec<W> m = e.from_one(k);
      store_h(first + k * W, quotient(m, output[k] * (2.0f - m) + (2.0f - m)));
    }
  }

  template <int K>
  __attribute__((always_inline)) void step_fast([[maybe_unused]] const Curves& curve) {
#if defined(__AVX512F__)
    const size_t first = at;
    Vec<W> next[K], output[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k, advance()) {
      next[k] = curve.sigmoid(gate(1)) * load<W>(c_before + at) + curve.sigmoid(gate(0)) * curve.tanh(gate(2));
      store<W>(c + at, next[k]);
      output[k] = curve.sigmoid(gate(3));
    }
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) store_h(first + k * W, output[k] * curve.tanh(next[k]));
#endif
  }

  void run() {
    if constexpr (Fast) {
      const Curves curves = Curves::get();  // a copy, which lies in registers
      while (at + 4 * W <= size) step_fast<4>(curves);
      while (at + W <= size) step_fast<1>(curves);
    } else {
      while (at + 4 * W <= size) step_exact<4, 2>();
      while (at + W <= size) step_exact<1, 1>();
    }
    if (L >= W || at == size) return;
    // a register filled up with zeros
    const int features = L < W ? W / L : 1, there = hidden - feature, left = there * lanes;
    float last[7][W] = {}, last_bias[5 * W] = {};
    for (int part = 0; part < 4; ++part) {
      std::memcpy(last[part], gates + part * size + at, sizeof(float) * static_cast<size_t>(left));
      std::memcpy(last_bias + part * features, bias + part * hidden + feature, sizeof(float) * static_cast<size_t>(there));
    }
    std::memcpy(last[4], c_before + at, sizeof(float) * static_cast<size_t>(left));
    Cell{last[0], last_bias, last[4], last[4], last[5], last[6], features, lanes}.run();
    std::memcpy(c + at, last[4], sizeof(float) * static_cast<size_t>(left));
    std::memcpy(h + at, last[5], sizeof(float) * static_cast<size_t>(left));
    std::memcpy(again + at, last[5], sizeof(float) * static_cast<size_t>(left));
  }
};

template <bool Fast>
inline void cell_of(const float* gates, const float* bias, const float* c_before, float* c, float* h, float* again,
                    int hidden, int lanes, Soon soon) {
  if (lanes == 1) return Cell<1, Fast>{gates, bias, c_before, c, h, again, hidden, lanes}.run();
  if (lanes == 4) return Cell<4, Fast>{gates, bias, c_before, c, h, again, hidden, lanes}.run();
  if (lanes == 8) return Cell<8, Fast>{gates, bias, c_before, c, h, again, hidden, lanes}.run();
  Cell<16, Fast>{gates, bias, c_before, c, h, again, hidden, lanes, soon}.run();
}

// `bias` can be read for a register beyond its end.
inline void cell(const float* gates, const float* bias, const float* c_before, float* c, float* h, float* again, int hidden,
                 int lanes, bool fast, Soon soon = {}) {
  if constexpr (kCurves)
    if (fast) return cell_of<true>(gates, bias, c_before, c, h, again, hidden, lanes, soon);
  cell_of<false>(gates, bias, c_before, c, h, again, hidden, lanes, soon);
}

}  // namespace dopant
