"""The machine below the process: clock, memory, processors, folder for temporary files, instance."""
