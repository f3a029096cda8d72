// The C interface of native/library.cpp, as any caller would declare it. The sanitized builds compile the library with
// this in front, so that the two have to agree.
#pragma once

#include <cstdint>

extern "C" {
int dopant_version();
const char* dopant_error();
const char* dopant_best_level();
void* dopant_dense(int rows, int columns, const float* values);
void* dopant_dense_int8(int rows, int columns, const int8_t* values, const float* scales, int fast);
void* dopant_sparse(int rows, int columns, int lookup, const int64_t* starts, const int32_t* column_of,
                    const float* values);
void* dopant_sparse_int8(int rows, int columns, int lookup, const int64_t* starts, const int32_t* column_of,
                         const int8_t* values, const float* scales, int fast);
void* dopant_kronecker(int terms, int count, const int32_t* shapes, const float* const* factors, int fast);
void* dopant_sum(const void* const* parts, int count);
void* dopant_stack(const void* const* parts, int count);
void* dopant_product(const void* left, const void* right);
void dopant_free_weight(void* handle);
int64_t dopant_weight_bytes(const void* handle);
void dopant_set_threads(int count);
int dopant_linear(const void* handle, const float* bias, const float* x, int batch, float* y);
int dopant_rows(const void* handle, const int64_t* index, int64_t count, float* y);
void* dopant_lstm(int count, int directions, const void* const* input, const void* const* recurrent,
                  const void* const* projection, const float* const* bias, const int32_t* inputs,
                  const int32_t* hidden, int fast);
void dopant_free_lstm(void* handle);
int64_t dopant_lstm_bytes(const void* handle);
int64_t dopant_state_size(const void* handle, int batch);
int dopant_lstm_run(const void* handle, const float* x, int steps, int batch, const float* before, float* after,
                    float* y);
struct DopantStep;
int dopant_lstm_step(const DopantStep* step);
void dopant_state_from(const void* handle, const float* h, const float* c, int batch, float* state);
void dopant_state_to(const void* handle, const float* state, int batch, float* h, float* c);
void dopant_log_softmax(float* logits, int batch, int count);
double dopant_read_bandwidth(int64_t bytes);
double dopant_multiply_add_peak();
}
