# Tests of the template wait for servers, too: a file more at a time than there are cores here.
WORKERS := 3
