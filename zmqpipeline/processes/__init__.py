"""What several processes are made by: `run`, worker groups, child processes that are started again."""
