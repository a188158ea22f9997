"""What target propagation is compared with."""
