// SPDX-License-Identifier: MIT
/// Memory of the GPU for tests, and its contents as vectors.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <addloss/cuda.cuh>

/// `offset` elements lie before the first: data at any alignment of its type.
template <class T>
class device_array {
 public:
  explicit device_array(std::vector<T> const& values, std::size_t offset = 0)
      : size_(values.size()), offset_(offset) {
    void* memory = nullptr;
    addloss::cuda::check("cudaMalloc", cudaMalloc(&memory, (size_ + offset_) * sizeof(T)));
    memory_ = static_cast<T*>(memory);
    write(values);
  }
  explicit device_array(std::size_t size) : device_array(std::vector<T>(size)) {}
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;
  ~device_array() { cudaFree(memory_); }

  [[nodiscard]] T* data() const { return memory_ + offset_; }
  void write(std::vector<T> const& values) {
    addloss::cuda::check(
        "cudaMemcpy", cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> result(size_);
    addloss::cuda::check(
        "cudaMemcpy", cudaMemcpy(result.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }
  template <class... Extents>
  [[nodiscard]] auto view(Extents... extents) const {
    return addloss::view<addloss::device_space>(data(), extents...);
  }
  /// The first element as a scalar.
  [[nodiscard]] addloss::tensor_view<T, 0, addloss::device_space> scalar() const {
    return {data(), {}, {}};
  }

 private:
  T* memory_ = nullptr;
  std::size_t size_;
  std::size_t offset_;
};

/// A context of the default stream with a workspace of `bytes`.
class device_context {
 public:
  explicit device_context(std::size_t bytes) : memory_(std::vector<std::uint64_t>(bytes / 8 + 2)) {
    context_.workspace = memory_.data();
    context_.bytes = bytes;
    addloss::zero_workspace(context_);
  }
  addloss::cuda_context const& operator()() const { return context_; }
  [[nodiscard]] addloss::cuda_context with_blocks(unsigned blocks) const {
    auto result = context_;
    result.blocks = blocks;
    return result;
  }

 private:
  device_array<std::uint64_t> memory_;
  addloss::cuda_context context_;
};

/// The levels of a host's schedule on the GPU.
class device_schedule {
 public:
  explicit device_schedule(addloss::discrete_schedule const& schedule)
      : levels_(std::vector<addloss::noise_level>(schedule.table().levels,
                                                  schedule.table().levels + schedule.table().size)),
        size_(schedule.size()) {}
  [[nodiscard]] addloss::schedule_table<addloss::device_space> table() const {
    return {levels_.data(), size_};
  }

 private:
  device_array<addloss::noise_level> levels_;
  std::int64_t size_;
};
