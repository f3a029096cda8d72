// What a kernel knows of a weight W (rows × columns).
//
// Activations lie feature by feature: x is (columns, lanes), y (rows, lanes), where the lanes are the batch, padded to
// one of the widths of `lanes_of`. So a Kronecker product is two plain GEMMs on reshaped x and a non-zero of the overlay
// is one multiply-accumulate of whole vectors. With one lane this is an ordinary vector.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

#include "arena.hpp"
#include "layout.hpp"
#include "vec.hpp"

namespace dopant {

inline int lanes_of(int batch) {
  if (batch <= 1) return 1;
  if (batch <= 4) return 4;
  if (batch <= 8) return 8;
  return (batch + 15) / 16 * 16;
}

constexpr int kMostItems = 32;  // of a batch, at a time

class Weight;
using WeightPointer = std::shared_ptr<const Weight>;

// So many lanes at most are faster one by one than filled up to 8 or 16, where kernels for one are at their best: banks,
// and Kronecker products that fill registers. See `most_singly`.
constexpr int kFew = 12;
inline bool singly(int batch, int most_singly) { return batch <= most_singly && batch % 8 != 0; }

class Weight {
 public:
  Weight(int rows, int columns) : rows(rows), columns(columns) {}
  virtual ~Weight() = default;
  // y += W x.
  virtual void apply(const float* x, float* y, int lanes) const = 0;
  // y = W x.
  virtual void set(const float* x, float* y, int lanes) const {
    std::memset(y, 0, sizeof(float) * static_cast<size_t>(rows) * lanes);
    apply(x, y, lanes);
  }
  // y (batch, rows) = x (batch, columns) Wᵀ + bias, as callers have them; bias may be null. Of kMostItems at most.
  virtual void linear(const float* bias, const float* x, int batch, float* y) const {
    if (batch > 1 && singly(batch, most_singly())) {
      for (int b = 0; b < batch; ++b) linear(bias, x + static_cast<size_t>(b) * columns, 1, y + static_cast<size_t>(b) * rows);
      return;
    }
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const int lanes = lanes_of(batch);
    float* in = arena.take<float>(static_cast<size_t>(columns) * lanes);
    float* out = arena.take<float>(static_cast<size_t>(rows) * lanes);
    to_lanes(x, batch, columns, in, lanes);
    spread(bias, rows, out, lanes);
    apply(in, out, lanes);
    from_lanes(out, batch, rows, lanes, y, static_cast<size_t>(rows));
  }
  // Of so many items at most it is faster to multiply one after the other, if they are not eight.
  virtual int most_singly() const { return 1; }
  // Whether `linear` shares W's rows among threads by itself.
  virtual bool shares_rows() const { return false; }
  // out (columns) += row i of W.
  virtual void row(int i, float* out) const = 0;
  // Whether the inputs' part of many steps is to be computed at once: many lanes take far less time than one after the other, and
  // a weight in two, of x and of h, hardly more than one of both.
  virtual bool gains_by_lanes() const { return false; }
  // W[:, first : first + count] as a weight of its own; null where that would be another kind of weight.
  virtual WeightPointer columns_of(int, int) const { return nullptr; }
  // Bytes held.
  virtual size_t bytes() const = 0;

  const int rows, columns;
};

// Of some weights any one.
template <class Weights>
bool any_gains_by_lanes(const Weights& weights) {
  return std::any_of(weights.begin(), weights.end(), [](const WeightPointer& weight) { return weight->gains_by_lanes(); });
}

// Of all of some weights, those that are there.
template <class Weights>
int most_singly_of(const Weights& weights) {
  int most = std::numeric_limits<int>::max();
  for (const WeightPointer& weight : weights)
    if (weight) most = std::min(most, weight->most_singly());
  return most;
}

}  // namespace dopant
