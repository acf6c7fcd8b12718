"""What is done while an INT8 graph loses more than its budget."""
