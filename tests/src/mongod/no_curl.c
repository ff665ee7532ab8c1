/* Stands in for a libcurl that mongod 5.0 is linked to, and that Debian 12 has no more. The server asks it at its start
   what it can do, and fetches nothing with it unless told to. A transfer therefore fails. */

enum { FEATURE_TLS = 1 << 2, FEATURE_ASYNC_DNS = 1 << 7, FAILED_INIT = 2 };

/* As in curl's manual, of the fourth age; the server reads no later member. */
struct version_info {
    int age;
    const char *version;
    unsigned int number;
    const char *host;
    int features;
    const char *tls;
    long tls_number;
    const char *zlib;
    const char *const *protocols;
    const void *later[16];
};

static const char *const protocols[] = {"https", "http", 0};
static const struct version_info about = {
    .age = 3, .version = "7.64.0", .number = 0x074000, .host = "none", .features = FEATURE_TLS | FEATURE_ASYNC_DNS,
    .tls = "none", .zlib = "none", .protocols = protocols,
};

const struct version_info *curl_version_info(int age) { (void)age; return &about; }
int curl_global_init(long flags) { (void)flags; return 0; }
void curl_global_cleanup(void) {}
void *curl_easy_init(void) { return 0; }
void curl_easy_cleanup(void *handle) { (void)handle; }
int curl_easy_setopt(void *handle, int option, ...) { (void)handle; (void)option; return FAILED_INIT; }
int curl_easy_getinfo(void *handle, int what, ...) { (void)handle; (void)what; return FAILED_INIT; }
int curl_easy_perform(void *handle) { (void)handle; return FAILED_INIT; }
const char *curl_easy_strerror(int code) { (void)code; return "this server was started without a libcurl"; }
void *curl_slist_append(void *list, const char *text) { (void)text; return list; }
void curl_slist_free_all(void *list) { (void)list; }
