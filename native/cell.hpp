// The LSTM cell: from gates to the new state, with exp by a polynomial (relative error about 1e-7).
#pragma once

#include "vec.hpp"

namespace dopant {

// e^x = scale · (1 + rest) with a power of two and a small rest, so that e^x - 1 too comes out to the last digits.
// Of K vectors, step by step: a chain of some twenty operations, and a processor looks only so far ahead for others.
template <int N, int K>
struct Exponentials {
  Vec<N> scale[K], rest[K];

  explicit Exponentials(const Vec<N> (&x)[K]) {
    const float magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number, in the lowest bits
    Vec<N> power[K], shifted[K], p[K];
    each([&](int k) { power[k] = at_most<N>(x[k] * 1.44269504088896341f, 57.0f); });  // 2^57 squared is still a number
    each([&](int k) { power[k] = at_least<N>(power[k], -115.0f); });
    each([&](int k) { shifted[k] = power[k] + magic; });
    each([&](int k) { power[k] -= shifted[k] - magic; });
    each([&](int k) { scale[k] = (Vec<N>)(((IntVec<N>)shifted[k] << 23) + 0x3f800000); });
    // (2^r - 1) / r for |r| <= 1/2, to a relative error of 1.1e-8
    each([&](int k) { p[k] = 1.5403512350e-4f * power[k] + 1.3390735477e-3f; });
    for (const float next : {9.6182374950e-3f, 5.5503574336e-2f, 2.4022649795e-1f, 6.9314718793e-1f})
      each([&](int k) { p[k] = p[k] * power[k] + next; });
    each([&](int k) { rest[k] = p[k] * power[k]; });
  }
  Vec<N> value(int k) const { return scale[k] * rest[k] + scale[k]; }
  Vec<N> minus_one(int k) const { return scale[k] * rest[k] + (scale[k] - 1.0f); }

 private:
  template <class F>
  static inline void each(F f) {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) f(k);
  }
};

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

// The cell of `hidden` features with so many lanes each: gates i f g o and their biases, c which is replaced, and h.
// L: lanes, but W for W and more.
template <int L>
struct Cell {
  const float *gates, *bias;
  float *c, *h;
  int hidden, lanes;

  // A feature and a lane of it; the next register begins where the last one ended.
  int feature = 0, lane = 0;
  void advance() {
    if (L < W) feature += W / L;
    if (L >= W && (lane += W) == lanes) lane = 0, ++feature;
  }
  size_t at() const { return static_cast<size_t>(feature) * lanes + lane; }

  // K registers. σ(a) = 1 / (1 + e^-a), tanh(b) = -m / (2 + m) with m = e^-2b - 1; a product of the two takes one division.
  template <int K>
  void step() {
    const size_t gate = static_cast<size_t>(hidden) * lanes, first = at();
    Vec<W> doubled[K], output[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k, advance()) {
      const float *from = gates + at(), *b = bias + feature;
      const Vec<W> i = load<W>(from) + biases<L>(b), f = load<W>(from + gate) + biases<L>(b + hidden);
      const Vec<W> g = load<W>(from + 2 * gate) + biases<L>(b + 2 * hidden);
      const Vec<W> o = load<W>(from + 3 * gate) + biases<L>(b + 3 * hidden);
      const Exponentials<W, 4> e({-i, -f, -2.0f * g, -o});
      const Vec<W> m = e.minus_one(2), kept = load<W>(c + at()) * reciprocal<W>(1.0f + e.value(1));
      const Vec<W> next = kept - m * reciprocal<W>((1.0f + e.value(0)) * (2.0f + m));
      store<W>(c + at(), next);
      doubled[k] = -2.0f * next;
      output[k] = 1.0f + e.value(3);
    }
    const Exponentials<W, K> e(doubled);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      const Vec<W> m = e.minus_one(k);
      store<W>(h + first + k * W, -m * reciprocal<W>(output[k] * (2.0f + m)));
    }
  }

  void run() {
    const size_t count = static_cast<size_t>(hidden) * lanes;
    while (at() + 4 * W <= count) step<4>();
    while (at() + W <= count) step<1>();
    if (L >= W || at() == count) return;
    const int features = L < W ? W / L : 1, there = hidden - feature, left = there * lanes;  // a register filled up with zeros
    float last[6][W] = {}, last_bias[5 * W] = {};
    for (int part = 0; part < 4; ++part) {
      std::memcpy(last[part], gates + part * count + at(), sizeof(float) * static_cast<size_t>(left));
      std::memcpy(last_bias + part * features, bias + part * hidden + feature, sizeof(float) * static_cast<size_t>(there));
    }
    std::memcpy(last[4], c + at(), sizeof(float) * static_cast<size_t>(left));
    Cell{last[0], last_bias, last[4], last[5], features, lanes}.template step<1>();
    std::memcpy(c + at(), last[4], sizeof(float) * static_cast<size_t>(left));
    std::memcpy(h + at(), last[5], sizeof(float) * static_cast<size_t>(left));
  }
};

inline void cell(const float* gates, const float* bias, float* c, float* h, int hidden, int lanes) {
  // `bias` can be read for a register beyond its end.
  if (lanes == 1) return Cell<1>{gates, bias, c, h, hidden, lanes}.run();
  if (lanes == 4) return Cell<4>{gates, bias, c, h, hidden, lanes}.run();
  if (lanes == 8) return Cell<8>{gates, bias, c, h, hidden, lanes}.run();
  Cell<16>{gates, bias, c, h, hidden, lanes}.run();
}

}  // namespace dopant
