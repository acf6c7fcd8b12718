"""What stands beside the tensors about a network: in other files of the folder or in the same."""
