// A stack of LSTM layers, one or two directions each, with state carried by the caller.
//
// With few lanes the inputs' part of the gates is computed for many steps at once, 32 lanes of time and batch together;
// what is left for each step is h's part. With many lanes a step fills the registers anyway, and [x; h] goes at once.
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
  std::vector<float> bias;   // 4 · hidden or none
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

  // x (steps, batch, inputs) -> y (steps, batch, outputs); the state is read and replaced.
  void run(const float* x, int steps, int batch, float* state, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const int lanes = lanes_of(batch);
    float* from = arena.take<float>(static_cast<size_t>(steps) * inputs() * lanes);
    for (int t = 0; t < steps; ++t) {
      const size_t at = static_cast<size_t>(t) * inputs();
      to_lanes(x + at * batch, batch, inputs(), from + at * lanes, lanes, lanes);
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

 private:
  // One layer in one direction over a whole sequence of (inputs, lanes).
  struct Direction {
    const LstmLayer& layer;
    const float* x;
    float* y;           // of step 0
    size_t y_stride;    // from step to step
    int steps, lanes;
    bool backward;

    static constexpr int kTogether = 32;  // lanes of time and batch

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
      const int together = steps > 1 && lanes < 16 ? kTogether / lanes : 0;
      float* ahead = nullptr;  // the gates' input part, step after step
      if (together > 0) {
        std::memset(joint, 0, sizeof(float) * x_size);
        ahead = arena.take<float>(gate_count() * static_cast<size_t>(together));
      }
      for (int n = 0; n < steps; ++n) {
        float* g = gates;
        if (together > 0) {
          if (n % together == 0) inputs_ahead(n, std::min(together, steps - n), ahead, arena);
          g = ahead + static_cast<size_t>(n % together) * gate_count();
          recur(joint, g);
        } else {
          spread(bias(), 4 * layer.hidden, g, lanes);
          if (layer.recurrent) {
            layer.input->apply(input(n), g, lanes, {0, layer.inputs});
            recur(joint, g);
          } else {
            std::memcpy(joint, input(n), sizeof(float) * x_size);
            layer.input->apply(joint, g, lanes, {0, layer.input->columns});
          }
        }
        const size_t count = static_cast<size_t>(layer.hidden) * lanes;
        cell(g, c, layer.projection ? hidden : h, count);
        if (layer.projection) {
          std::memset(h, 0, sizeof(float) * h_size);
          layer.projection->apply(hidden, h, lanes, {0, layer.hidden});
        }
        std::memcpy(y + static_cast<size_t>(step(n)) * y_stride, h, sizeof(float) * h_size);
      }
      std::memcpy(state, h, sizeof(float) * h_size);
    }

    const float* bias() const { return layer.bias.empty() ? nullptr : layer.bias.data(); }

    void recur(const float* joint, float* g) const {
      if (layer.recurrent)
        layer.recurrent->apply(joint, g, lanes, {0, layer.outputs()});
      else
        layer.input->apply(joint, g, lanes, {layer.inputs, layer.input->columns});
    }

    // ahead (count, gates, lanes) = bias + W_x x for `count` steps from n on.
    void inputs_ahead(int n, int count, float* ahead, Arena& arena) const {
      Arena::Scope scope(arena);
      const int wide = lanes_of(count * lanes), rows = 4 * layer.hidden;
      const size_t columns = static_cast<size_t>(layer.input->columns);
      float* xs = arena.take<float>(columns * wide);
      std::memset(xs, 0, sizeof(float) * columns * wide);
      for (int k = 0; k < count; ++k) {
        const float* from = input(n + k);
        for (int j = 0; j < layer.inputs; ++j)
          for (int lane = 0; lane < lanes; ++lane)
            xs[static_cast<size_t>(j) * wide + k * lanes + lane] = from[static_cast<size_t>(j) * lanes + lane];
      }
      float* gs = arena.take<float>(static_cast<size_t>(rows) * wide);
      spread(bias(), rows, gs, wide);
      layer.input->apply(xs, gs, wide, {0, layer.inputs});
      for (int first = 0; first < rows; first += 16)
        for (int k = 0; k < count; ++k)
          for (int j = first; j < std::min(rows, first + 16); ++j)
            for (int lane = 0; lane < lanes; ++lane)
              ahead[static_cast<size_t>(k) * gate_count() + static_cast<size_t>(j) * lanes + lane] =
                  gs[static_cast<size_t>(j) * wide + k * lanes + lane];
    }
  };

  std::vector<LstmLayer> layers_;
  int directions_;
};

}  // namespace dopant
