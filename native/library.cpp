// The C interface. Handles are owned by the caller; nothing here throws across it: a function that fails returns null
// or -1 and `dopant_error` says why. Arrays are float32 and contiguous; batches are (batch, features).
//
// The whole library is built once for each level of processor (see build_native.py); the loader picks one.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "compose.hpp"
#include "dense_bytes.hpp"
#include "kronecker_shorts.hpp"
#include "limits.hpp"
#include "lstm.hpp"
#include "sparse.hpp"
#include "threads.hpp"

#define API extern "C" __attribute__((visibility("default")))

using namespace dopant;

namespace {

thread_local std::string last_error;

template <class Make>
void* handle(Make make) {
  try {
    return new WeightPointer(make());
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}

template <class Do>
int guarded(Do work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

const WeightPointer& weight(const void* handle) { return *static_cast<const WeightPointer*>(handle); }

std::vector<WeightPointer> weights(const void* const* handles, int count) {
  std::vector<WeightPointer> result;
  for (int i = 0; i < count; ++i) result.push_back(weight(handles[i]));
  return result;
}

// In strips of as many columns as a kernel can tell apart.
template <class T>
WeightPointer make_sparse(int rows, int columns, bool lookup, const int64_t* starts, const int32_t* column_of,
                          const T* values, const float* scales, bool fast) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (starts[rows] > most)
    throw std::length_error(std::to_string(starts[rows]) + " non-zeros, " + std::to_string(most) + " at most");
  std::vector<WeightPointer> strips;
  for (int64_t first = 0; first == 0 || first < columns; first += kMostSparseColumns) {
    const int width = static_cast<int>(std::min<int64_t>(kMostSparseColumns, columns - first));
    std::vector<Entry<T>> entries;
    for (int r = 0; r < rows; ++r)
      for (int64_t i = starts[r]; i < starts[r + 1]; ++i)
        if (const int64_t column = column_of[i] - first; column >= 0 && column < width)
          entries.push_back({r, static_cast<uint16_t>(column), values[i]});
    sort_by_rows(entries);
    if (lookup)
      strips.push_back(std::make_shared<SparseLookup<T>>(rows, width, entries, scales));
    else
      strips.push_back(std::make_shared<Sparse<T>>(rows, width, entries, scales, fast));
  }
  return strips.size() == 1 ? strips.front() : std::make_shared<Beside>(std::move(strips));
}

// f(part of the state, the same in h or c, how many sequences, of what width) for all parts.
template <class State, class Array, class F>
void each_of_state(const void* handle, State* state, Array* h, Array* c, int batch, F f) {
  const Lstm& lstm = *static_cast<const Lstm*>(handle);
  const int count = lstm.together(batch);
  const auto part = [&](Array*& whole, int first, int width) {
    f(state, whole + static_cast<size_t>(first) * width, count, width);
    state += static_cast<size_t>(width) * lanes_of(count);
    whole += static_cast<size_t>(batch) * width;
  };
  for (int first = 0; first < batch; first += count) {
    Array *h_of_layer = h, *c_of_layer = c;
    for (const LstmLayer& layer : lstm.layers()) {
      part(h_of_layer, first, layer.outputs());
      part(c_of_layer, first, layer.hidden);
    }
  }
}

}  // namespace

API int dopant_version() { return 5; }
API const char* dopant_error() { return last_error.c_str(); }

// The best level of this processor among those that build_native.py builds.
API const char* dopant_best_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool bytes = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  return bytes ? "avx512vnni" : avx512 ? "avx512" : avx2 ? "avx2" : "generic";
#else
  return "generic";
#endif
}

API void* dopant_dense(int rows, int columns, const float* values) {
  return handle([&] { return std::make_shared<Dense<float>>(rows, columns, values, nullptr); });
}
API void* dopant_dense_int8(int rows, int columns, const int8_t* values, const float* scales, int fast) {
  return handle([&] { return make_dense_int8(rows, columns, values, scales, fast != 0); });
}
// lookup: its rows are only looked up.
API void* dopant_sparse(int rows, int columns, int lookup, const int64_t* starts, const int32_t* column_of,
                        const float* values) {
  return handle([&] { return make_sparse<float>(rows, columns, lookup != 0, starts, column_of, values, nullptr, false); });
}
API void* dopant_sparse_int8(int rows, int columns, int lookup, const int64_t* starts, const int32_t* column_of,
                             const int8_t* values, const float* scales, int fast) {
  return handle(
      [&] { return make_sparse<int8_t>(rows, columns, lookup != 0, starts, column_of, values, scales, fast != 0); });
}
// shapes: rows and columns of each factor; factors[f] (terms, rows, columns).
API void* dopant_kronecker(int terms, int count, const int32_t* shapes, const float* const* factors, int fast) {
  return handle([&] {
    std::vector<FactorShape> sides;
    for (int f = 0; f < count; ++f) sides.push_back({shapes[2 * f], shapes[2 * f + 1]});
    return make_kronecker(terms, std::move(sides), factors, fast != 0);
  });
}
API void* dopant_sum(const void* const* parts, int count) {
  return handle([&] { return std::make_shared<Sum>(weights(parts, count)); });
}
API void* dopant_stack(const void* const* parts, int count) {
  return handle([&] { return std::make_shared<Stack>(weights(parts, count)); });
}
API void* dopant_product(const void* left, const void* right) {
  return handle([&] { return std::make_shared<Product>(weight(left), weight(right)); });
}
API void dopant_free_weight(void* handle) { delete static_cast<WeightPointer*>(handle); }
API int64_t dopant_weight_bytes(const void* handle) { return static_cast<int64_t>(weight(handle)->bytes()); }

// How many threads share a large batch or matrix, from now on and for all of the process.
API void dopant_set_threads(int count) { Threads::wanted() = std::max(1, count); }

// y (batch, rows) = x (batch, columns) Wᵀ + bias; bias may be null.
API int dopant_linear(const void* handle, const float* bias, const float* x, int batch, float* y) {
  return guarded([&] {
    const Weight& w = *weight(handle);
    const int threads = w.shares_rows() ? 1 : static_cast<int>(Threads::wanted());
    const int size = std::clamp(((batch + threads - 1) / threads + 15) / 16 * 16, 16, kMostItems);  // in whole registers
    const auto multiply = [&](int part) {
      const size_t first = static_cast<size_t>(part) * size;
      w.linear(bias, x + first * w.columns, std::min(size, batch - part * size), y + first * w.rows);
    };
    const int parts = (batch + size - 1) / size;
    if (threads > 1) return Threads::run(parts, multiply);
    for (int part = 0; part < parts; ++part) multiply(part);
  });
}

// y (count, columns) = rows of W.
API int dopant_rows(const void* handle, const int64_t* index, int64_t count, float* y) {
  return guarded([&] {
    const Weight& w = *weight(handle);
    std::memset(y, 0, sizeof(float) * static_cast<size_t>(count) * w.columns);
    for (int64_t i = 0; i < count; ++i) w.row(static_cast<int>(index[i]), y + i * w.columns);
  });
}

// For each layer and direction: input weight, recurrent weight or null, projection or null; bias or null.
API void* dopant_lstm(int count, int directions, const void* const* input, const void* const* recurrent,
                      const void* const* projection, const float* const* bias, const int32_t* inputs,
                      const int32_t* hidden, int fast) {
  try {
    std::vector<LstmLayer> layers;
    int inputs_due = inputs[0];
    for (int i = 0; i < count; ++i) {
      LstmLayer layer{weight(input[i]), nullptr, nullptr, {}, inputs[i], hidden[i]};
      if (recurrent[i] != nullptr) layer.recurrent = weight(recurrent[i]);
      if (projection[i] != nullptr) layer.projection = weight(projection[i]);
      const int columns = inputs_due + (layer.recurrent ? 0 : layer.outputs()), gates = 4 * hidden[i];
      check(inputs[i] == inputs_due && layer.input->columns == columns && layer.input->rows == gates,
            "an LSTM's input weight does not fit");
      check(!layer.recurrent || (layer.recurrent->rows == gates && layer.recurrent->columns == layer.outputs()),
            "an LSTM's recurrent weight does not fit");
      check(!layer.projection || layer.projection->columns == hidden[i], "an LSTM's projection does not fit");
      if (i % directions == directions - 1) inputs_due = layer.outputs() * directions;
      layer.bias.resize(4 * static_cast<size_t>(hidden[i]) + W);  // whole registers are read
      if (bias[i] != nullptr) std::copy_n(bias[i], 4 * static_cast<size_t>(hidden[i]), layer.bias.begin());
      layers.push_back(std::move(layer));
    }
    return new Lstm(std::move(layers), directions, fast != 0);
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}
API void dopant_free_lstm(void* handle) { delete static_cast<Lstm*>(handle); }
API int64_t dopant_lstm_bytes(const void* handle) { return static_cast<int64_t>(static_cast<const Lstm*>(handle)->bytes()); }
API int64_t dopant_state_size(const void* handle, int batch) {
  return static_cast<int64_t>(static_cast<const Lstm*>(handle)->state_size(batch));
}
// x (steps, batch, inputs) -> y (steps, batch, outputs); the state before, which may be null for zeros, and after.
API int dopant_lstm_run(const void* handle, const float* x, int steps, int batch, const float* before, float* after,
                        float* y) {
  return guarded([&] {
    const Lstm& lstm = *static_cast<const Lstm*>(handle);
    if (before == nullptr) std::memset(after, 0, sizeof(float) * lstm.state_size(batch));
    lstm.run(x, steps, batch, before == nullptr ? after : before, after, y);
  });
}
// A step that is called again and again, all it takes in one place: to pass many arguments takes Python longer than some steps.
struct DopantStep {
  const void* lstm;
  const float* x;
  const float* before;
  float *after, *y;  // `after` may be `before`
  int batch;
};
API int dopant_lstm_step(const DopantStep* step) {
  return dopant_lstm_run(step->lstm, step->x, 1, step->batch, step->before, step->after, step->y);
}
// Between a state and torch's h (layers · directions, batch, outputs) and c (…, batch, hidden).
API void dopant_state_from(const void* handle, const float* h, const float* c, int batch, float* state) {
  each_of_state(handle, state, h, c, batch,
                [](float* part, const float* from, int count, int width) { to_lanes(from, count, width, part, lanes_of(count)); });
}
API void dopant_state_to(const void* handle, const float* state, int batch, float* h, float* c) {
  each_of_state(handle, state, h, c, batch, [](const float* part, float* to, int count, int width) {
    from_lanes(part, count, width, lanes_of(count), to, static_cast<size_t>(width));
  });
}

// In place: logits (batch, count) -> log-probabilities.
API void dopant_log_softmax(float* logits, int batch, int count) {
  for (int b = 0; b < batch; ++b, logits += count) {
    Vec<W> largest = all<W>(-INFINITY);
    int i = 0;
    for (; i + W <= count; i += W) largest = load<W>(logits + i) > largest ? load<W>(logits + i) : largest;
    float most = -INFINITY;
    for (int lane = 0; lane < W; ++lane) most = std::max(most, largest[lane]);
    for (; i < count; ++i) most = std::max(most, logits[i]);
    double total = 0.0;
    i = 0;
    for (; i + W <= count; i += W) total += sum<W>(Exponentials<1>({load<W>(logits + i) - most}, [](int) { return 1.0f; }).value(0));
    for (; i < count; ++i) total += std::exp(static_cast<double>(logits[i] - most));
    const float norm = static_cast<float>(std::log(total));
    for (int k = 0; k < count; ++k) logits[k] = (logits[k] - most) - norm;  // `most` may be large: nothing is added to it
  }
}

// Negative where there is not enough memory to measure with.
API double dopant_read_bandwidth(int64_t bytes) {
  double found = -1.0;
  guarded([&] { found = read_bandwidth(static_cast<size_t>(bytes)); });
  return found;
}
API double dopant_multiply_add_peak() { return multiply_add_peak(); }
