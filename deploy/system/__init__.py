"""What differs between operating systems, behind calls that are the same on all of them."""
