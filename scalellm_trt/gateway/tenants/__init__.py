"""Who asks: what each tenant may have, its turn among others, what it has used."""
