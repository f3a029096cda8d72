// A stack of LSTM layers, one or two directions each, with state carried by the caller.
//
// Each step multiplies [x; h], or x and h. Of one sequence the inputs' part of many steps is computed at once where a weight
// gains by it: a dense one does, and a sparse one in gaps.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <vector>

#include "cell.hpp"
#include "layout.hpp"
#include "threads.hpp"
#include "weight.hpp"

namespace dopant {

struct LstmLayer {
  WeightPointer input;       // W_ih, or W of [x; h] where `recurrent` is absent
  WeightPointer recurrent;   // W_hh or null
  WeightPointer projection;  // W_hr or null
  std::vector<float> bias;   // 4 · hidden
  int inputs, hidden;

  int outputs() const { return projection ? projection->rows : hidden; }
};

class Lstm {
 public:
  // fast: σ and tanh by tables.
  Lstm(std::vector<LstmLayer> layers, int directions, bool fast)
      : layers_(std::move(layers)), directions_(directions), fast_(fast) {
    for (LstmLayer& layer : layers_) {
      set_apart(layer);
      size_of_one_ += static_cast<size_t>(layer.outputs() + layer.hidden);
      most_singly_ = std::min(most_singly_, most_singly_of(std::array{layer.input, layer.recurrent, layer.projection}));
    }
    Curves::get();  // made here, not at the first step: a fork meanwhile would leave them half made
  }

  int inputs() const { return layers_.front().inputs; }
  int outputs() const { return layers_.back().outputs() * directions_; }
  const std::vector<LstmLayer>& layers() const { return layers_; }

  size_t bytes() const {
    size_t total = 0;
    for (const LstmLayer& layer : layers_)
      for (const WeightPointer& weight : {layer.input, layer.recurrent, layer.projection})
        if (weight) total += weight->bytes();
    return total;
  }

  // How many sequences of a batch are computed together: all, or one after the other where weights are faster so.
  int together(int batch) const { return singly(batch, most_singly_) ? 1 : batch; }

  // Floats of a state: for each layer and direction h (outputs, lanes), then c (hidden, lanes), of all sequences that are
  // computed together; then of the next ones.
  size_t state_size(int batch) const {
    return size_of_one_ * static_cast<size_t>(together(batch) == 1 ? batch : lanes_of(batch));
  }

  // x (steps, batch, inputs) -> y (steps, batch, outputs), and the state before -> after, which may be the same. A large
  // batch is shared among threads, in parts of whole registers; and cut where it is huge, or where what is left would fill
  // half of one at most.
  void run(const float* x, int steps, int batch, const float* before, float* after, float* y) const {
    const auto part_of = [&](int first, int count) {
      return Part{x + static_cast<size_t>(first) * inputs(), y + static_cast<size_t>(first) * outputs(), steps, count, batch};
    };
    if (together(batch) == 1) {
      for (int b = 0; b < batch; ++b) run_part(part_of(b, 1), before + b * size_of_one_, after + b * size_of_one_);
      return;
    }
    const int threads = std::max(1, std::min(static_cast<int>(Threads::wanted()), (batch + 15) / 16));
    const int whole = batch / 16 * 16, left = batch - whole;
    const bool cut = threads == 1 && whole > 0 && left > 0 && lanes_of(left) < 16;
    const int size = std::min(kMostTogether, cut ? whole : ((batch + threads - 1) / threads + 15) / 16 * 16);
    const int parts = (batch + size - 1) / size;
    if (parts == 1) return run_part(part_of(0, batch), before, after);
    Threads::run(parts, [&](int part) {
      const int first = part * size, count = std::min(size, batch - first);
      Arena& arena = Arena::of_this_thread();
      Arena::Scope scope(arena);
      const size_t floats = size_of_one_ * lanes_of(count);
      float* own = arena.take<float>(floats);
      std::memset(own, 0, sizeof(float) * floats);  // also of lanes that are there to fill registers
      copy_state(before + first, lanes_of(batch), own, lanes_of(count), count);
      run_part(part_of(first, count), own, own);
      copy_state(own, lanes_of(count), after + first, lanes_of(batch), count);
    });
    const size_t lanes = static_cast<size_t>(lanes_of(batch)), filled = static_cast<size_t>(batch);
    for (size_t k = 0; k < size_of_one_; ++k) std::fill(after + k * lanes + filled, after + (k + 1) * lanes, 0.0f);
  }

 private:
  static constexpr int kAhead = 4;  // steps at least whose inputs' part is computed at once
  static constexpr int kMostTogether = 4096;  // sequences: kernels count up to 2^19 features of these in 32 bits

  // Two weights, of x and of h, for one of [x; h], where steps can then be computed ahead.
  static void set_apart(LstmLayer& layer) {
    if (layer.recurrent || !layer.input->gains_by_lanes()) return;
    const WeightPointer x = layer.input->columns_of(0, layer.inputs);
    const WeightPointer h = layer.input->columns_of(layer.inputs, layer.outputs());
    if (x && h) layer.input = x, layer.recurrent = h;
  }

  struct Part {  // of a batch: `count` sequences, which lie together in a step of x and y
    const float* x;
    float* y;
    int steps, count, batch;
  };

  // `count` lanes of all that a state holds, from one that has `from_lanes` to one that has `to_lanes`.
  void copy_state(const float* from, int from_lanes, float* to, int to_lanes, int count) const {
    for (size_t left = size_of_one_; left > 0; --left, from += from_lanes, to += to_lanes)
      std::memcpy(to, from, sizeof(float) * static_cast<size_t>(count));
  }

  // In one direction all layers go through a few steps before the next few: what a layer leaves for the next one then
  // stays in the cache.
  void run_part(const Part& part, const float* before, float* after) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const int lanes = lanes_of(part.count);
    const int few = std::min(part.steps, directions_ == 1 ? std::max(1, 32 / lanes) : part.steps);
    const Room room(*this, few, lanes, arena);
    for (int t = 0; t < part.steps; t += few) {
      const size_t at = static_cast<size_t>(t) * part.batch;
      const Part some{part.x + at * inputs(), part.y + at * outputs(), std::min(few, part.steps - t), part.count, part.batch};
      run_few(some, room, t == 0 ? before : nullptr, after, t + few >= part.steps);
    }
  }

  // Where a few steps are computed.
  struct Room {
    float** outputs;  // of the layers before the first, and of all others: (steps, width, lanes)
    float** joint;    // [x; h] of each layer and direction, or h alone

    // Where there is one step at a time, h lies behind the output of the layer before, and [x; h] need not be put together.
    Room(const Lstm& lstm, int steps, int lanes, Arena& arena) {
      const size_t count = lstm.layers_.size(), directions = static_cast<size_t>(lstm.directions_);
      outputs = arena.take<float*>(count / directions + 1);
      joint = arena.take<float*>(count);
      for (size_t i = 0; i < count; ++i) {
        const LstmLayer& layer = lstm.layers_[i];
        const size_t x_size = static_cast<size_t>(layer.inputs) * lanes, h_size = static_cast<size_t>(layer.outputs()) * lanes;
        const bool behind = steps == 1 && !layer.recurrent;  // in one direction perhaps, and not in the other
        if (i % directions == 0) outputs[i / directions] = arena.take<float>(steps * x_size + (steps == 1 ? h_size : 0));
        joint[i] = behind ? outputs[i / directions] : arena.take<float>((layer.recurrent ? 0 : x_size) + h_size);
      }
      outputs[count / directions] = arena.take<float>(static_cast<size_t>(steps) * lstm.outputs() * lanes);
    }
  };

  // before: null where the room still holds h, and `after` c. `last`: no further steps follow.
  void run_few(const Part& part, const Room& room, const float* before, float* after, bool last) const {
    Arena& arena = Arena::of_this_thread();
    const int steps = part.steps, lanes = lanes_of(part.count);
    for (int t = 0; t < steps; ++t) {
      const size_t at = static_cast<size_t>(t) * inputs();
      to_lanes(part.x + at * part.batch, part.count, inputs(), room.outputs[0] + at * lanes, lanes);
    }
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LstmLayer& layer = layers_[i];
      const size_t level = i / static_cast<size_t>(directions_), direction = i % static_cast<size_t>(directions_);
      const size_t h_size = static_cast<size_t>(layer.outputs()) * lanes, size = h_size + static_cast<size_t>(layer.hidden) * lanes;
      Direction d{layer, room.outputs[level], room.outputs[level + 1] + direction * h_size, h_size * directions_,
                  room.joint[i], steps, lanes, direction == 1, fast_};
      if (i == 0) d.soon = {last ? nullptr : part.x + static_cast<size_t>(steps) * part.batch * inputs(), part.y};
      d.run(before, after, last, arena);
      if (before != nullptr) before += size;
      after += size;
    }
    const float* y = room.outputs[layers_.size() / static_cast<size_t>(directions_)];
    for (int t = 0; t < steps; ++t) {
      const size_t at = static_cast<size_t>(t) * outputs();
      from_lanes(y + at * lanes, part.count, outputs(), lanes, part.y + at * part.batch, static_cast<size_t>(outputs()));
    }
  }

  // One layer in one direction over a few steps of (inputs, lanes).
  struct Direction {
    const LstmLayer& layer;
    const float* x;
    float* y;           // of step 0
    size_t y_stride;    // from step to step
    float* joint;
    int steps, lanes;
    bool backward, fast;
    Soon soon = {};  // of all of the steps

    bool steps_ahead() const {
      return layer.recurrent && lanes == 1 && steps >= kAhead && layer.input->gains_by_lanes();
    }

    int step(int n) const { return backward ? steps - 1 - n : n; }
    const float* input(int n) const { return x + static_cast<size_t>(step(n)) * layer.inputs * lanes; }

    // The n-th part of it.
    Soon soon_of(int n) const {
      const size_t first = static_cast<size_t>(n) * layer.hidden * lanes;
      const auto from = [=](const float* p) { return p == nullptr ? p : p + first; };
      return {from(soon.read), from(soon.written)};
    }

    // The states before and after: h, then c.
    void run(const float* before, float* after, bool last, Arena& arena) {
      Arena::Scope scope(arena);
      const size_t h_size = static_cast<size_t>(layer.outputs()) * lanes;
      const float* c = (before != nullptr ? before : after) + h_size;
      const bool ahead = steps_ahead();
      const size_t gates_size = static_cast<size_t>(4) * layer.hidden * lanes;
      float* room = arena.take<float>(gates_size * static_cast<size_t>(ahead ? std::min(kMostItems, steps) : 1));
      float* hidden = layer.projection ? arena.take<float>(static_cast<size_t>(layer.hidden) * lanes) : nullptr;
      const size_t x_size = layer.recurrent ? 0 : static_cast<size_t>(layer.inputs) * lanes;
      float* kept = joint + x_size;
      if (before != nullptr) std::memcpy(kept, before, sizeof(float) * h_size);
      for (int n = 0; n < steps; ++n, c = after + h_size) {
        float* h = y + static_cast<size_t>(step(n)) * y_stride;
        float* gates = room;
        if (ahead) {
          const int nth = n % kMostItems, count = std::min(kMostItems, steps - (n - nth));
          if (nth == 0) layer.input->linear(nullptr, std::min(input(n), input(n + count - 1)), count, room);
          gates += static_cast<size_t>(backward ? count - 1 - nth : nth) * gates_size;
          layer.recurrent->apply(kept, gates, lanes);
        } else if (layer.recurrent) {
          layer.input->set(input(n), gates, lanes);
          layer.recurrent->apply(kept, gates, lanes);
        } else {
          if (joint != x) std::memcpy(joint, input(n), sizeof(float) * x_size);
          layer.input->set(joint, gates, lanes);
        }
        float* next = last && n + 1 == steps ? after : kept;
        float *first = layer.projection ? hidden : h, *second = layer.projection ? hidden : next;
        cell(gates, layer.bias.data(), c, after + h_size, first, second, layer.hidden, lanes, fast, soon_of(n));
        if (layer.projection) {
          layer.projection->set(hidden, h, lanes);
          std::memcpy(next, h, sizeof(float) * h_size);
        }
      }
    }
  };

  std::vector<LstmLayer> layers_;
  int directions_;
  bool fast_;
  int most_singly_ = std::numeric_limits<int>::max();
  size_t size_of_one_ = 0;
};

}  // namespace dopant
