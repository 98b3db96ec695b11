"""What every training run shares: recipes, runs, the loop, schedules, captions, losses."""
