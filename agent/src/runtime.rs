//! The one place that spawns threads and tasks, and that ends them in order.
