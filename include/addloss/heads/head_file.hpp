// SPDX-License-Identifier: MIT
/// Parameters and spectral state of a stack of heads in a safetensors file, which PyTorch reads.
///
///   save_heads("heads.safetensors", stack, parameters, state, {{"step", "1000"}});
///   auto const metadata = load_heads("heads.safetensors", stack, parameters, state);
/// | tensor                              | name                    | shape                |
/// | each part of the parameters         | "0.first.conv.weight"   | as parameter(i) says |
/// | u and v of each normalised weight W | "0.first.conv.u", ".v"  | [rows], [columns]    |
/// u and v lie beside their weight: its name, without what follows the last dot, and "u" or "v".
/// The type is that of the stack, F32 or F64. Weights are those that are trained, not W / sigma.
/// Numbers keep their bits, NaN too. Saving is atomic, and loading writes nothing unless the whole
/// file is right: it must hold exactly these tensors, in these shapes and this type; others beside
/// them with load_options::allow_extra. Both allocate.
/// Needs POSIX and a little-endian machine, as heads/safetensors.hpp does, so <addloss/addloss.hpp>
/// does not include this header.
/// Errors: sizes of buffers, as "save_heads: ..." and "load_heads: ..."; all others as in
/// heads/safetensors.hpp, by the name of the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <addloss/core/error.hpp>
#include <addloss/core/scalar.hpp>
#include <addloss/heads/head_stack.hpp>
#include <addloss/heads/layer.hpp>
#include <addloss/heads/safetensors.hpp>
#include <addloss/heads/spectral_weights.hpp>

namespace addloss {
namespace detail {

/// The tensors of a stack: names and shapes, and where they lie in its buffers.
class head_tensors {
 public:
  template <class Stack>
  explicit head_tensors(Stack const& stack) {
    for (int i = 0; i < stack.parameters(); ++i) {
      parameter_view const part = stack.parameter(i);
      parameters_.push_back(
          {part.name, std::vector(part.extents, part.extents + part.rank), part.offset});
    }
    stack.each_state([&](int k, spectral_state_view const& part) {
      std::string name = std::to_string(k) + "." + stack[k].parameter(part.parameter).name;
      name.resize(name.rfind('.') + 1);
      std::int64_t const offset = stack.state_offset(k);
      state_.push_back({name + "u", {part.rows}, offset + part.u});
      state_.push_back({name + "v", {part.columns}, offset + part.v});
    });
  }

  /// For one call of heads/safetensors.hpp; valid as long as this object.
  template <class Tensor, class T>
  [[nodiscard]] std::vector<Tensor> in(T* parameters, T* state) const {
    std::vector<Tensor> result;
    for (auto const& part : parameters_) {
      result.emplace_back(part.name, part.shape, parameters + part.offset);
    }
    for (auto const& part : state_) {
      result.emplace_back(part.name, part.shape, state + part.offset);
    }
    return result;
  }

 private:
  struct tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset;
  };
  std::vector<tensor> parameters_;
  std::vector<tensor> state_;
};

template <class Stack>
void check_head_buffers(char const* function, Stack const& stack, std::size_t parameters,
                        std::size_t state) {
  auto const check = [&](char const* argument, std::int64_t expected, std::size_t got) {
    if (static_cast<std::int64_t>(got) != expected) {
      fail(function, argument, text() << expected << " numbers",
           text() << static_cast<std::int64_t>(got));
    }
  };
  check("parameters", stack.parameter_count(), parameters);
  check("state", stack.state_count(), state);
}

}  // namespace detail

/// Writes a file. `state` is empty where the stack does not normalise.
template <arithmetic_scalar T, layer<T> Head>
void save_heads(std::string const& path, head_stack<T, Head> const& stack,
                std::type_identity_t<std::span<T const>> parameters,
                std::type_identity_t<std::span<T const>> state,
                safetensors_metadata const& metadata = {}) {
  detail::check_head_buffers("save_heads", stack, parameters.size(), state.size());
  detail::head_tensors const tensors(stack);
  save_safetensors(path, tensors.in<saved_tensor>(parameters.data(), state.data()), metadata);
}

/// Reads a file of a stack of the same heads and the same type, and gives its metadata.
template <arithmetic_scalar T, layer<T> Head>
safetensors_metadata load_heads(std::string const& path, head_stack<T, Head> const& stack,
                                std::type_identity_t<std::span<T>> parameters,
                                std::type_identity_t<std::span<T>> state,
                                load_options options = {}) {
  detail::check_head_buffers("load_heads", stack, parameters.size(), state.size());
  detail::head_tensors const tensors(stack);
  return load_safetensors(path, tensors.in<loaded_tensor>(parameters.data(), state.data()),
                          options);
}

}  // namespace addloss
