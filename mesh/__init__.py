"""The mesh: who is out there, what they hold, who should answer, and how a call gets there."""
