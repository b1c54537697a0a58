"""What Gatehouse does, one folder per concern; imports point down: evaluation -> training -> llm -> core."""
