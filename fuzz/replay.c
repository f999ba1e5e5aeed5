/* Gives a fuzz target every file of the folders that are named, where no fuzzer does. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *folder, const char *name) {
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return -1;
    }
    (void)fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(size > 0 ? size : 1);
    int status = data != NULL && fread(data, 1, size, file) == size ? 0 : -1;
    if (status == 0) {
        (void)LLVMFuzzerTestOneInput(data, size);
    }
    free(data);
    (void)fclose(file);
    return status;
}

int main(int argc, char **argv) {
    unsigned files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
            if (entry->d_name[0] != '.') {
                if (replay(argv[i], entry->d_name) != 0) {
                    return 1;
                }
                files++;
            }
        }
        if (folder != NULL) {
            (void)closedir(folder);
        }
    }
    return files > 0 ? 0 : 1;
}
