"""From the worker to the acknowledgement: results under way, their credit, what the collector does with them."""
