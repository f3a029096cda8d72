// A stack of LSTM layers, one or two directions each, with state carried by the caller.
//
// Each step multiplies [x; h]. Computing the inputs' part of many steps at once, as dense LSTMs do, was measured and is
// no gain: a compressed matrix is small enough to be read from the cache anew.
#pragma once

#include <cstring>
#include <vector>

#include "cell.hpp"
#include "layout.hpp"
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
  Lstm(std::vector<LstmLayer> layers, int directions) : layers_(std::move(layers)), directions_(directions) {}

  int inputs() const { return layers_.front().inputs; }
  int outputs() const { return layers_.back().outputs() * directions_; }
  const std::vector<LstmLayer>& layers() const { return layers_; }

  // Floats of a state: for each layer and direction h (outputs, lanes), then c (hidden, lanes).
  size_t state_size(int batch) const {
    size_t total = 0;
    for (const auto& layer : layers_) total += static_cast<size_t>(layer.outputs() + layer.hidden);
    return total * static_cast<size_t>(lanes_of(batch));
  }

  // x (steps, batch, inputs) -> y (steps, batch, outputs); the state is read and replaced. In one direction all layers
  // go through a few steps before the next few: what a layer leaves for the next one then stays in the cache.
  void run(const float* x, int steps, int batch, float* state, float* y) const {
    const int few = directions_ == 1 ? std::max(1, 32 / lanes_of(batch)) : steps;
    for (int t = 0; t < steps; t += few) {
      const size_t at = static_cast<size_t>(t) * batch;
      run_few(x + at * inputs(), std::min(few, steps - t), batch, state, y + at * outputs());
    }
  }

 private:
  void run_few(const float* x, int steps, int batch, float* state, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const int lanes = lanes_of(batch);
    float* from = arena.take<float>(static_cast<size_t>(steps) * inputs() * lanes);
    for (int t = 0; t < steps; ++t) {
      const size_t at = static_cast<size_t>(t) * inputs();
      to_lanes(x + at * batch, batch, inputs(), from + at * lanes, lanes);
    }
    for (size_t first = 0; first < layers_.size(); first += static_cast<size_t>(directions_)) {
      const int width = layers_[first].outputs() * directions_;
      float* to = arena.take<float>(static_cast<size_t>(steps) * width * lanes);
      for (int direction = 0; direction < directions_; ++direction) {
        const LstmLayer& layer = layers_[first + direction];
        Direction d{layer, from, to + static_cast<size_t>(direction) * layer.outputs() * lanes,
                    static_cast<size_t>(width) * lanes, steps, lanes, direction == 1};
        d.run(state, arena);
        state += static_cast<size_t>(layer.outputs() + layer.hidden) * lanes;
      }
      from = to;
    }
    for (int t = 0; t < steps; ++t) {
      const size_t at = static_cast<size_t>(t) * outputs();
      from_lanes(from + at * lanes, batch, outputs(), lanes, y + at * batch, static_cast<size_t>(outputs()));
    }
  }

  // One layer in one direction over a whole sequence of (inputs, lanes).
  struct Direction {
    const LstmLayer& layer;
    const float* x;
    float* y;           // of step 0
    size_t y_stride;    // from step to step
    int steps, lanes;
    bool backward;

    size_t gate_count() const { return static_cast<size_t>(4) * layer.hidden * lanes; }
    int step(int n) const { return backward ? steps - 1 - n : n; }
    const float* input(int n) const { return x + static_cast<size_t>(step(n)) * layer.inputs * lanes; }

    void run(float* state, Arena& arena) {
      Arena::Scope scope(arena);
      const size_t h_size = static_cast<size_t>(layer.outputs()) * lanes;
      float* c = state + h_size;
      float* gates = arena.take<float>(gate_count());
      float* hidden = layer.projection ? arena.take<float>(static_cast<size_t>(layer.hidden) * lanes) : nullptr;
      const size_t x_size = layer.recurrent ? 0 : static_cast<size_t>(layer.inputs) * lanes;
      float* joint = arena.take<float>(x_size + h_size);  // [x; h], or h alone
      float* h = joint + x_size;
      std::memcpy(h, state, sizeof(float) * h_size);
      for (int n = 0; n < steps; ++n) {
        if (layer.recurrent) {
          layer.input->set(input(n), gates, lanes);
          layer.recurrent->apply(h, gates, lanes);
        } else {
          std::memcpy(joint, input(n), sizeof(float) * x_size);
          layer.input->set(joint, gates, lanes);
        }
        cell(gates, layer.bias.data(), c, layer.projection ? hidden : h, layer.hidden, lanes);
        if (layer.projection) layer.projection->set(hidden, h, lanes);
        std::memcpy(y + static_cast<size_t>(step(n)) * y_stride, h, sizeof(float) * h_size);
      }
      std::memcpy(state, h, sizeof(float) * h_size);
    }
  };

  std::vector<LstmLayer> layers_;
  int directions_;
};

}  // namespace dopant
