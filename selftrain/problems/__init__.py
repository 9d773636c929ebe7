"""Problems: reads them from their sources, assigns splits, and checks that no evaluation problem is in the training data."""
