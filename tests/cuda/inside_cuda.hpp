// SPDX-License-Identifier: MIT
#pragma once

/// True while the CUDA runtime runs: what it allocates itself must not be asked of itself.
inline bool inside_cuda = false;

/// Makes it so for a scope.
class cuda_scope {
 public:
  cuda_scope() { inside_cuda = true; }
  ~cuda_scope() { inside_cuda = before_; }
  cuda_scope(cuda_scope const&) = delete;
  cuda_scope& operator=(cuda_scope const&) = delete;

 private:
  bool before_ = inside_cuda;
};
