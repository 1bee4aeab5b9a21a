-- A small music shop in Chinook's tables, for when the real one is not given.
CREATE TABLE Artist(ArtistId INTEGER PRIMARY KEY, Name TEXT);
CREATE TABLE Album(AlbumId INTEGER PRIMARY KEY, Title TEXT NOT NULL,
    ArtistId INTEGER NOT NULL REFERENCES Artist(ArtistId));
CREATE TABLE MediaType(MediaTypeId INTEGER PRIMARY KEY, Name TEXT);
CREATE TABLE Track(TrackId INTEGER PRIMARY KEY, Name TEXT NOT NULL,
    AlbumId INTEGER REFERENCES Album(AlbumId),
    MediaTypeId INTEGER NOT NULL REFERENCES MediaType(MediaTypeId),
    Milliseconds INTEGER NOT NULL, UnitPrice NUMERIC NOT NULL);
CREATE TABLE Playlist(PlaylistId INTEGER PRIMARY KEY, Name TEXT);
CREATE TABLE PlaylistTrack(PlaylistId INTEGER NOT NULL REFERENCES Playlist(PlaylistId),
    TrackId INTEGER NOT NULL REFERENCES Track(TrackId), PRIMARY KEY(PlaylistId, TrackId));
CREATE TABLE Customer(CustomerId INTEGER PRIMARY KEY, FirstName TEXT NOT NULL,
    LastName TEXT NOT NULL, Email TEXT NOT NULL);
CREATE TABLE Invoice(InvoiceId INTEGER PRIMARY KEY,
    CustomerId INTEGER NOT NULL REFERENCES Customer(CustomerId),
    InvoiceDate TEXT NOT NULL, Total NUMERIC NOT NULL);
CREATE TABLE InvoiceLine(InvoiceLineId INTEGER PRIMARY KEY,
    InvoiceId INTEGER NOT NULL REFERENCES Invoice(InvoiceId),
    TrackId INTEGER NOT NULL REFERENCES Track(TrackId),
    UnitPrice NUMERIC NOT NULL, Quantity INTEGER NOT NULL);
INSERT INTO Artist VALUES(1, 'AC/DC'), (2, 'Accept'), (3, 'Aerosmith');
INSERT INTO Album VALUES(1, 'For Those About To Rock', 1), (2, 'Balls to the Wall', 2),
    (3, 'Restless and Wild', 2), (5, 'Big Ones', 3);
INSERT INTO MediaType VALUES(1, 'MPEG audio file');
INSERT INTO Track VALUES(1, 'For Those About To Rock', 1, 1, 343719, 0.99),
    (2, 'Balls to the Wall', 2, 1, 342562, 0.99), (3, 'Fast As a Shark', 3, 1, 230619, 0.99),
    (23, 'Walk On Water', 5, 1, 295680, 0.99);
INSERT INTO Playlist VALUES(1, 'Music');
INSERT INTO PlaylistTrack VALUES(1, 1), (1, 2), (1, 3), (1, 23);
INSERT INTO Customer VALUES(1, 'Luís', 'Gonçalves', 'luisg@example.com');
INSERT INTO Invoice VALUES(1, 1, '2009-01-01', 1.98);
INSERT INTO InvoiceLine VALUES(1, 1, 2, 0.99, 1), (2, 1, 1, 0.99, 1);
