"""What every job needs: errors with exit codes, declared files, safe file writes, statistics, safe Markdown."""
