vcl 4.1;

backend app {
    .host = "127.0.0.1";
    .port = "@SERVER@";
}

sub vcl_recv {
    if (req.http.Upgrade ~ "(?i)websocket") {
        return (pipe);
    }
    return (pass);
}

sub vcl_pipe {
    set bereq.http.X-Front = "@TOKEN@";
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
}

sub vcl_backend_fetch {
    set bereq.http.X-Front = "@TOKEN@";
}
